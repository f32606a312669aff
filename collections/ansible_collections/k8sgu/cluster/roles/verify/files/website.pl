# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The demo's website: a guest book of page views, kept in a Redis database on another machine. It is in Perl because the
# published Redis image has Perl (perl-base, which every Debian has), so that the demo needs no image of its own.
#
#   GET  /            the page: this view is counted, the latest ones are shown
#   GET  /api/visits  {"hostname", "node", "count", "visits": [{"time", "hostname", "node", "client"}]}; counts nothing
#   POST /api/visits  counts a visit and answers as GET does
#   GET  /healthz     200 while the process serves, whatever the database does
#   GET  /readyz      200 while the database answers, 503 with the reason otherwise
#
# Environment: LISTEN_ADDRESS (by default 0.0.0.0:8080), DATABASE_ADDRESS (host:port), DATABASE_PASSWORD_FILE (read anew
# for every connection, so that it can be rotated), NODE_NAME (shown as it is).
use strict;
use warnings;
# All that a request needs is loaded before the first one: each has a process of its own, which would load it again, within its time
# limit. IO::Socket loads IO::Select itself, but not before a connection has a time limit.
use IO::Select ();
use IO::Socket::INET;
use POSIX qw(strftime WNOHANG);

use constant {
    KEPT         => 20,
    MOST_AT_ONCE => 16,         # requests, each in a process of its own
    REQUEST_S    => 15,
    DATABASE_S   => 2,
    # A page waits this long for a database that moves to another machine: its visitor sees it late and not broken.
    PATIENCE_S   => 8,
    HEAD_BYTES   => 16384,
};
my $hostname = (POSIX::uname())[1];
my $node     = $ENV{NODE_NAME} // '';
my %status   = (
    200 => 'OK',
    400 => 'Bad Request',
    404 => 'Not Found',
    405 => 'Method Not Allowed',
    503 => 'Service Unavailable',
);

$| = 1;
$SIG{PIPE} = 'IGNORE';
my $ending = 0;
$SIG{TERM} = $SIG{INT} = sub { $ending = 1 };
my $address = $ENV{LISTEN_ADDRESS} // '0.0.0.0:8080';
my $server = IO::Socket::INET->new(LocalAddr => $address, Listen => 128, ReuseAddr => 1)
    or die "LISTEN_ADDRESS: $address: $@\n";
print "serving on $address\n";

# A Service keeps its address, so the name is asked for once, and again where nobody answers there: a name server that is away takes
# no website with it.
my ($database_host, $database_port) = split /:/, $ENV{DATABASE_ADDRESS} // 'database:6379';
my $database_address;
# Each request has a process of its own, which says here where the name led to.
pipe(my $told, my $tell) or die "pipe: $!\n";

my $children = 0;
until ($ending) {
    # Wakes once a second, since a signal that comes just before the wait would be noticed only after it.
    my $readable = '';
    vec($readable, fileno($_), 1) = 1 for $server, $told;
    my $found = select($readable, undef, undef, 1);
    $children-- while $children && waitpid(-1, $children < MOST_AT_ONCE ? WNOHANG : 0) > 0;
    next if $ending || $found <= 0;
    if (vec($readable, fileno($told), 1)) {
        sysread($told, my $said, 4096);
        ($database_address) = (split /\n/, $said)[-1];
    }
    next unless vec($readable, fileno($server), 1);
    my $client = $server->accept or next;
    my $child = fork;
    if (defined $child && !$child) {
        $SIG{TERM} = $SIG{INT} = 'IGNORE';
        $SIG{ALRM} = 'DEFAULT';
        alarm REQUEST_S;
        close $server;
        serve($client);
        POSIX::_exit(0);
    }
    $children++ if defined $child;
    close $client;
}
# As process 1 it would take its children with it.
close $server;
1 while waitpid(-1, 0) > 0;

# A connection to the database, at the address that is remembered or else at its name.
sub connection {
    my $known = $database_address
        && IO::Socket::INET->new(PeerAddr => $database_address, PeerPort => $database_port, Timeout => DATABASE_S / 2);
    return $known if $known;
    my $found = IO::Socket::INET->new(PeerAddr => $database_host, PeerPort => $database_port) or return;
    syswrite($tell, $found->peerhost . "\n");
    return $found;
}

sub serve {
    my ($client) = @_;
    my $head = '';
    until ($head =~ /\r?\n\r?\n/) {
        return answer($client, 1, 400, 'the request has no end') if length $head > HEAD_BYTES;
        sysread($client, $head, 4096, length $head) or return;
    }
    my ($before, $body) = split /\r?\n\r?\n/, $head, 2;
    my ($method, $target) = $before =~ m{^([A-Z]+) (\S+) HTTP/1\.[01]\r?$}m;
    return answer($client, 1, 400, 'not a request of HTTP/1') unless defined $target;
    # A client that is still sending would lose the answer.
    my ($length) = $before =~ /^content-length:[ \t]*(\d+)/im;
    my $left = ($length // 0) - length $body;
    while ($left > 0) {
        my $read = sysread($client, my $dropped, 4096) or return;
        $left -= $read;
    }
    my $path = $target =~ s/\?.*//r;
    my $shown = $method ne 'HEAD';
    my %allowed = ('/' => 'GET', '/api/visits' => 'GET POST', '/healthz' => 'GET', '/readyz' => 'GET');
    return answer($client, $shown, 404, 'there is no such page') unless $allowed{$path};
    my $asked = $shown ? $method : 'GET';
    return answer($client, $shown, 405, "only $allowed{$path}") unless grep { $_ eq $asked } split / /, $allowed{$path};
    return answer($client, $shown, 200, 'ok') if $path eq '/healthz';

    my ($client_address) = map { defined ? $_ : '' } $client->peerhost;
    my @asked = $path eq '/readyz' ? ['PING'] : (['GET', 'website:count'], ['LRANGE', 'website:visits', 0, KEPT - 1]);
    if ($method eq 'POST' || $path eq '/' && $shown) {
        my $visit = join "\t", strftime('%Y-%m-%dT%H:%M:%SZ', gmtime), $hostname, $node, $client_address;
        unshift @asked, ['INCR', 'website:count'], ['LPUSH', 'website:visits', $visit],
            ['LTRIM', 'website:visits', 0, KEPT - 1];
    }
    my $told = eval { database($path eq '/readyz' ? 0 : PATIENCE_S, @asked) };
    unless ($told) {
        chomp(my $why = $@ || 'no answer');
        print STDERR "the database did not serve: $why\n";
        return answer($client, $shown, 503, "the database did not serve: $why");
    }
    return answer($client, $shown, 200, 'ok') if $path eq '/readyz';
    my ($count, $lines) = @{$told}[-2, -1];
    my @visits = map { [split /\t/, $_, -1] } @$lines;
    return answer($client, $shown, 200, page($count // 0, @visits), 'text/html; charset=utf-8') if $path eq '/';
    answer($client, $shown, 200, book($count // 0, @visits), 'application/json');
}

sub answer {
    my ($client, $shown, $code, $text, $type) = @_;
    $text .= "\n" unless defined $type;
    $type //= 'text/plain; charset=utf-8';
    print $client "HTTP/1.1 $code $status{$code}\r\nContent-Type: $type\r\nContent-Length: " . length($text)
        . "\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\nConnection: close\r\n\r\n"
        . ($shown ? $text : '');
    close $client;
}

# The answers to all commands, in one transaction: all of them happen, or none. Dies with the reason. Only a connection that is refused
# is tried again, for $patience seconds: what was sent may have been done.
sub database {
    my ($patience, @commands) = @_;
    my $where = "$database_host:$database_port";
    my $started = time;
    local $SIG{ALRM} = sub { die "$where did not answer within " . ($patience + DATABASE_S) . " s\n" };
    alarm($patience + DATABASE_S);
    my $answers = eval {
        my $database;
        until ($database = connection()) {
            die "$where: $@\n" if time - $started >= $patience;
            select undef, undef, undef, 0.2;
        }
        my @sent = (['MULTI'], @commands, ['EXEC']);
        if (my $file = $ENV{DATABASE_PASSWORD_FILE}) {
            open my $stream, '<', $file or die "DATABASE_PASSWORD_FILE: $file: $!\n";
            chomp(my $password = <$stream> // '');
            unshift @sent, ['AUTH', $password];
        }
        for my $command (@sent) {
            print $database join '', '*', scalar @$command, "\r\n", map { '$' . length($_) . "\r\n$_\r\n" } @$command;
        }
        $database->flush;
        my $last;
        $last = reply($database) for @sent;
        $last;
    };
    my $why = $@;
    alarm(REQUEST_S - (time - $started));
    die $why || "$where gave no answer\n" unless $answers;
    return $answers;
}

# One reply of https://redis.io/docs/latest/develop/reference/protocol-spec/, version 2. Dies with an error reply.
sub reply {
    my ($database) = @_;
    my $line = <$database> // die "the connection ended\n";
    $line =~ s/\r\n$//;
    my ($kind, $rest) = $line =~ /^(.)(.*)$/s or die "not a reply\n";
    die "$rest\n" if $kind eq '-';
    return $rest if $kind eq '+' || $kind eq ':';
    return undef if $rest < 0;
    return [map { reply($database) } 1 .. $rest] if $kind eq '*';
    my $data = '';
    while (length $data < $rest + 2) {
        read($database, $data, $rest + 2 - length $data, length $data) or die "the connection ended\n";
    }
    return substr $data, 0, $rest;
}

sub book {
    my ($count, @visits) = @_;
    my $object = sub {
        my @fields = @_;
        my @pairs;
        while (my ($name, $value) = splice @fields, 0, 2) {
            $value =~ s/(["\\])/\\$1/g;
            $value =~ s/([\x00-\x1f])/sprintf '\\u%04x', ord $1/ge;
            push @pairs, qq("$name":"$value");
        }
        return @pairs;
    };
    my @shown = map { '{' . join(',', $object->(time => $_->[0], hostname => $_->[1], node => $_->[2], client => $_->[3])) . '}' } @visits;
    return '{' . join(',', $object->(hostname => $hostname, node => $node)) . qq(,"count":$count,"visits":[) . join(',', @shown) . "]}\n";
}

sub page {
    my ($count, @visits) = @_;
    my %escaped = ('&' => '&amp;', '<' => '&lt;', '>' => '&gt;', '"' => '&quot;');
    my $safe = sub { my ($text) = @_; $text =~ s/([&<>"])/$escaped{$1}/g; return $text };
    my $rows = join '', map {
        '<tr>' . join('', map { '<td>' . $safe->($_) . '</td>' } @$_) . "</tr>\n"
    } @visits;
    my $place = $node eq '' ? '' : ' on node <code>' . $safe->($node) . '</code>';
    my $name = $safe->($hostname);
    return <<"PAGE";
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>k8sgu demo</title>
<style>
body { font: 16px/1.5 sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd }
strong { font-size: 1.6rem }
</style>
</head>
<body>
<h1>It runs</h1>
<p>This page was seen <strong>$count</strong> times. Replica <code>$name</code>$place
served it; a database on another machine keeps the count.</p>
<table>
<tr><th>Time</th><th>Replica</th><th>Node</th><th>Client</th></tr>
$rows</table>
</body>
</html>
PAGE
}
